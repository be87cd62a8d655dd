"""`python -m baldwhisper_convert.cli`, which launchers of several processes need."""

from baldwhisper_convert.cli.main import main

if __name__ == "__main__":
    main()
