"""The agent that lives on an injector. Others may import only `agent.wire`."""
