"""The page at `/`: what is wrong, for somebody with a browser and a port-forward. HTML made here, and nothing else.

Nothing of this is imported before somebody asks for it. It knows a diagnosis by its JSON form alone.
"""

from agent.status_page.page import HEADERS, Links, StatusPage, render
from agent.status_page.targets import Known

__all__ = ["HEADERS", "Known", "Links", "StatusPage", "render"]
