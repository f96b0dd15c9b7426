"""Exports expanded datasets: python experiments/export.py export.source=<dir> export.output_dir=<dir> export.format=parquet"""

from distdiff.commands.launch import command

main = command("export", "distdiff.commands.export:export", about=__doc__)

if __name__ == "__main__":
    main()
