"""Expands a dataset: python experiments/expand.py dataset=digits guidance=direct expansion.factor=5"""

from distdiff.commands.launch import command

main = command("expand")

if __name__ == "__main__":
    main()
