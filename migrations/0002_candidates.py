"""Tuned parameters: a place has a run per candidate, and an experiment says how to read itself."""


def up(migrator, db):
    db.execute_sql("ALTER TABLE experiment ADD COLUMN outline TEXT")
    db.execute_sql("ALTER TABLE experiment ADD COLUMN request TEXT")
    db.execute_sql("ALTER TABLE membership ADD COLUMN candidate INTEGER NOT NULL DEFAULT 0")
    db.execute_sql("ALTER TABLE membership ADD COLUMN tuned TEXT")
    db.execute_sql("DROP INDEX membership_experiment_id_cell_replicate")
    db.execute_sql(
        "CREATE UNIQUE INDEX membership_experiment_id_cell_replicate_candidate"
        " ON membership (experiment_id, cell, replicate, candidate)"
    )
