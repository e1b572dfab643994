-- How an environment's requests are to be treated, as its owner said: JSON, as a table file has it; NULL where nothing was said.

ALTER TABLE environment ADD COLUMN policy TEXT;
