"""The page: its tables, figures, words and reasons for distrust."""
