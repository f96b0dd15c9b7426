"""Measures an expanded dataset: python experiments/measure.py measure.expanded=outputs/expanded/<dir>"""

from distdiff.commands.launch import command

main = command("measure", "distdiff.commands.measure:measure", about=__doc__)

if __name__ == "__main__":
    main()
