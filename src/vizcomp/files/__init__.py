"""Inputs and outputs on a disk or in a bucket; knows no pixels."""
