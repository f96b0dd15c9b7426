"""Trains one classifier on real, or real and expanded, images and tests it: python experiments/train.py train.expanded=<dir>"""

from distdiff.commands.launch import command

main = command("train")

if __name__ == "__main__":
    main()
