"""All five methods with all their controls on one organism: the table of `elicit compare --controls`, and a picture."""
