"""Trains one classifier and tests it: python experiments/train.py train.expanded=outputs/expanded/<dir>"""

from distdiff.config.launch import command

main = command("train", "distdiff.classification.command:train", about=__doc__)

if __name__ == "__main__":
    main()
