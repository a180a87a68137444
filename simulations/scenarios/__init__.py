"""Scenarios, one file each; see `fedcert.scenarios.Scenario` for the interface."""
