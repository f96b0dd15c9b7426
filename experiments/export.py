"""Merges and converts expanded datasets: python experiments/export.py export.source=<dir> export.output_dir=<dir>"""

from distdiff.commands.launch import command

main = command("export")

if __name__ == "__main__":
    main()
