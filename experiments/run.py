"""Runs the whole study on one dataset: python experiments/run.py dataset=digits guidance=direct guidance.rho=1"""

from distdiff.commands.launch import command

main = command("run")

if __name__ == "__main__":
    main()
