"""Expands a dataset: python experiments/expand.py dataset=digits guidance=direct expansion.factor=5"""

from distdiff.config.launch import command

main = command("expand", "distdiff.expansion.command:expand", about=__doc__)

if __name__ == "__main__":
    main()
