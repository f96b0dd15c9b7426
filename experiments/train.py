"""Trains one classifier and tests it: python experiments/train.py train.expanded=outputs/expanded/<dir>"""

from distdiff.commands.launch import command

main = command("train", "distdiff.commands.train:train", about=__doc__)

if __name__ == "__main__":
    main()
