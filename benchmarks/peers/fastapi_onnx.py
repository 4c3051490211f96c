"""FastAPI with ONNX Runtime in process.

uvicorn --app-dir benchmarks/peers fastapi_onnx:app --workers 2
"""

import graphs
from in_fastapi import serving

from recommender.contract import RECOMMENDER_ONNX

app = serving(RECOMMENDER_ONNX, graphs.onnx)
