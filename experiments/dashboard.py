"""Saves a view of a W&B project with the charts of its runs: python experiments/dashboard.py dashboard.project=<project>"""

from distdiff.commands.launch import command

main = command("dashboard")

if __name__ == "__main__":
    main()
