"""`python -m benchmarks.report`."""

from benchmarks.report.build import main

if __name__ == "__main__":
    main()
