"""Compares an expanded dataset with the real data: python experiments/measure.py measure.expanded=outputs/expanded/<dir>"""

from distdiff.commands.launch import command

main = command("measure")

if __name__ == "__main__":
    main()
