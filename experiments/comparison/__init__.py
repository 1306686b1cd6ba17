"""All keys and all their controls on one organism: the table that `elicit compare --controls` made, and its command."""
