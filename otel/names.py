"""Every name we put into traces: span names, attributes, events. Nothing else in the house spells one.

Sources: OpenTelemetry semantic conventions for HTTP (stable), messaging and GenAI (both in development; GenAI lives in
its own repository since semantic-conventions 1.42). What has no standard name is ours: ``gateway.*`` for what any gateway
does, ``pointsman.*`` for what only this house has. The names are kept here and not taken from a package, because those in
development move between packages and versions.
"""

from typing import Final

# HTTP, at the edge and towards providers.
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# Mail between actors.
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_DESTINATION_TEMPLATE: Final = "messaging.destination.template"
ACTOR_SYSTEM: Final = "actor"
PROCESS: Final = "process"

# Calls to models.
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"

# Our own: what any gateway decides.
ROUTING_DECISION: Final = "gateway.routing.decision"
DECISION_ID: Final = "gateway.routing.decision_id"
DECISION_STRATEGY: Final = "gateway.routing.strategy"
DECISION_CHOSEN: Final = "gateway.routing.chosen"
DECISION_LEFT_OUT: Final = "gateway.routing.left_out"
DECISION_LEFT_OUT_COUNT: Final = "gateway.routing.left_out_count"
DECISION_ERROR: Final = "gateway.routing.error"
CONFIGURATION_GENERATION: Final = "gateway.configuration.generation"

# Our own: what only this house has.
MAILBOX_WAIT_MS: Final = "pointsman.mailbox.wait_ms"
MESSAGE_TYPE: Final = "pointsman.message.type"
PROVIDER_ID: Final = "pointsman.provider.id"
ATTEMPT: Final = "pointsman.attempt"
ATTEMPT_KIND: Final = "pointsman.attempt.kind"
TENANT: Final = "pointsman.tenant"
PRIORITY: Final = "pointsman.priority"
PUBLIC_MODEL: Final = "pointsman.model"
USAGE_ESTIMATED: Final = "pointsman.usage.estimated"

_OPERATIONS: Final = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}

_PROVIDER_NAMES: Final = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


def operation_name(endpoint: str) -> str:
    """The value of ``gen_ai.operation.name`` for an endpoint of ours (``chat``, ``completions``, ``embeddings``)."""
    return _OPERATIONS.get(endpoint, endpoint)


def provider_name(kind: str) -> str:
    """The value of ``gen_ai.provider.name`` for a provider's kind. A kind without a well-known name stands for itself."""
    return _PROVIDER_NAMES.get(kind, kind)


def server_span_name(method: str, route: str) -> str:
    """``POST /v1/chat/completions``; the method alone where no route matched, for a path may hold anything."""
    return f"{method} {route}" if route else method


def process_span_name(template: str) -> str:
    """``process provider``."""
    return f"{PROCESS} {template}"


def attempt_span_name(operation: str, model: str) -> str:
    """``chat gpt-4o``."""
    return f"{operation} {model}" if model else operation


def destination_template(actor: str) -> str:
    """The low-cardinality name of an actor: ``provider`` for ``provider:openai-eu``, ``router`` for ``router``."""
    return actor.partition(":")[0]
