"""The Kafka messages this project speaks, as tables: see compiler.py for their form."""
