"""How fast the parts are, one script a question, each beside what others do and what the machine allows."""
