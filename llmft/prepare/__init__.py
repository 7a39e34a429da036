"""Prepare: from what a call centre has to train, validation and test files that one may train on."""
