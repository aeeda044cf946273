"""CT, dual head: two syringes of 200 mL, a warmer for the contrast."""

from agent.drivers.base import Driver, DriverSettings
from agent.drivers.clinic import Procedure, Shot
from agent.drivers.fluidics import IODINE_370, SALINE, Reservoir
from agent.drivers.parts import Heater
from agent.drivers.simulator import Model, Simulator
from agent.wire.catalogue import ProductLineCode

MODEL = Model(
    product_line=ProductLineCode.CT_DUAL,
    software_version="12.3.0",
    reservoirs=(
        Reservoir("a", capacity_ml=200, ml_per_mm=1.6, fluid=IODINE_370, warmed=True),
        Reservoir("b", capacity_ml=200, ml_per_mm=1.6, fluid=SALINE, warmed=False),
    ),
    saline="b",
    pressure_limit_kpa=2068,  # 300 psi
    resistance=24,
    procedures=(
        Procedure((Shot("a", 4.0, 80), Shot("b", 4.0, 40)), hold=True),
        Procedure((Shot("b", 5.0, 20), Shot("a", 5.0, 75), Shot("b", 5.0, 50)), hold=True),
        Procedure((Shot("a", 3.0, 100), Shot("b", 3.0, 30))),
    ),
    parts=(Heater,),
)


def create(settings: DriverSettings) -> Driver:
    return Simulator(MODEL, settings)
