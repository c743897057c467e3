-- The most memory that agents of a kind had, as it is remembered: those of a project that run the same program.

CREATE TABLE peak (
  project  INTEGER NOT NULL REFERENCES project,
  program  TEXT NOT NULL,
  bytes    INTEGER NOT NULL,
  PRIMARY KEY (project, program)
) STRICT, WITHOUT ROWID;
