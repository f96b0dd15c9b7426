"""Measures how fast images are made, and where the time goes: python experiments/benchmark.py benchmark.repeats=5"""

from distdiff.commands.launch import command

main = command("benchmark")

if __name__ == "__main__":
    main()
