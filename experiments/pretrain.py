"""Trains a small latent diffusion pipeline from an image dataset: python experiments/pretrain.py dataset=font_digits"""

from distdiff.commands.launch import command

main = command("pretrain")

if __name__ == "__main__":
    main()
