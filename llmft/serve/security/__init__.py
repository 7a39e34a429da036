"""Who may ask, how much, from where; and what no answer may lack."""
