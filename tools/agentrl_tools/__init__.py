"""Tools that agents call: python, search, SQL, HTTP. A tool knows no environment.

Import the one you need (`from agentrl_tools.python import ...`); importing the package loads none of them.
"""
