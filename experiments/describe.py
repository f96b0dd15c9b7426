"""Shows what is wrong with a dataset: python experiments/describe.py dataset=imagefolder dataset.root=<folder>"""

from distdiff.commands.launch import command

main = command("describe")

if __name__ == "__main__":
    main()
