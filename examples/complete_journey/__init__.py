"""The Complete Journey: a grocer's real year, from files to numbers with receipts."""
