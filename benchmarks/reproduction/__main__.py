"""`python -m benchmarks.reproduction`."""

from benchmarks.reproduction.measure import main

if __name__ == "__main__":
    main()
