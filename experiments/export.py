"""Exports expanded datasets: python experiments/export.py export.source=<dir> export.output_dir=<dir> export.format=parquet"""

from distdiff.config.launch import command

main = command("export", "distdiff.export.command:export", about=__doc__)

if __name__ == "__main__":
    main()
