"""The way from this injector through a hospital's network, and what goes wrong (R-CON-7).

settings   what a site sets: its proxy, a bandwidth cap
site       the same in the hands of the running agent, and of the command line
connect    HTTP CONNECT, without IO
route      one way to one server: which carrier, through which proxy
carriers   which carrier to try next; pure
journey    name, TCP, proxy, TLS, websocket of one attempt; blocking, for a thread
date       what time the vendor's server has, for a clock that may be wrong; blocking
doubt      who hangs up, where both carriers are cut: pure
websocket  MQTT bytes in websocket messages
findings   what was observed, and what is wrong: pure
words      findings in plain words with their remedy, English and French
keepalive  pings closer together where silence gets cut; pure
pace       the bandwidth cap as a token bucket; pure
"""
