"""No part: its name starts with an underscore."""
