"""Where in state space did a row go, and was anything there before?"""
