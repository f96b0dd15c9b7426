"""Measures an expanded dataset: python experiments/measure.py measure.expanded=outputs/expanded/<dir>"""

from distdiff.config.launch import command

main = command("measure", "distdiff.metrics.command:measure_expanded", about=__doc__)

if __name__ == "__main__":
    main()
