"""FastAPI with TorchScript in process.

uvicorn --app-dir benchmarks/peers fastapi_torchscript:app --workers 2
"""

import graphs
from in_fastapi import serving

from recommender.contract import RECOMMENDER_TORCHSCRIPT

app = serving(RECOMMENDER_TORCHSCRIPT, graphs.torchscript)
