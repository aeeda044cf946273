"""The specialist's command line. Imports agent.wire and no Django: it is installed on its own."""
