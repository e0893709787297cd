"""The ledger: every fact ftd relies on, in one SQLite file.  The only room that imports peewee."""
