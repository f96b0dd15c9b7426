"""Looks a dataset over before anything is made of it: python experiments/describe.py dataset=imagefolder dataset.root=~/images"""

from distdiff.commands.launch import command

main = command("describe", "distdiff.commands.describe:describe", about=__doc__)

if __name__ == "__main__":
    main()
