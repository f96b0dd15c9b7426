"""Shows what an expansion would make and what it would cost: python experiments/preview.py dataset=digits guidance=direct"""

from distdiff.commands.launch import command

main = command("preview")

if __name__ == "__main__":
    main()
