"""`patency-agent doctor`: what keeps this injector from connecting, in plain words (R-CON-7).

    checks       what was looked at and what it showed; pure
    examination  the looking: files, clock, name, port, proxy, TLS, MQTT
    report       as text, as JSON, and as the page that stays with the hospital; pure

What the doctor finds out stays with the hospital (R-PRV-2): nothing here publishes, and nothing of
it is kept where a bundle would take it.
"""
