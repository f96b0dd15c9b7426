"""Inspects a dataset before anything is made from it: python experiments/describe.py dataset=imagefolder dataset.root=~/images"""

from distdiff.commands.launch import command

main = command("describe", "distdiff.commands.describe:describe", about=__doc__)

if __name__ == "__main__":
    main()
