"""`python -m mlflow_server COMMAND`, the form that anaconda-project.yml uses."""

from mlflow_server.cli.main import main

if __name__ == "__main__":
    main()
