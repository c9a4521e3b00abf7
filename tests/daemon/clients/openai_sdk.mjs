// All that the official SDK for Node is asked to do, in one go. Prints what came of it as JSON, for the test to judge.
import OpenAI from 'openai';

const baseURL = process.argv[2];
const client = new OpenAI({ baseURL, apiKey: 'anything' });
const messages = [{ role: 'user', content: 'größe \u2028 \u{1f600}' }];
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
};
const told = {};

const { data, response } = await client.chat.completions.create({ model: 'm', messages, max_tokens: 5 }).withResponse();
told.whole = {
  text: data.choices[0].message.content,
  usage: data.usage,
  provider: response.headers.get('x-pointsman-provider'),
  is_request_id_known: Boolean(data._request_id) && data._request_id === response.headers.get('x-request-id'),
};

async function streamed(more) {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ model: 'm', messages, max_tokens: 5, stream: true, ...more })) {
    chunks.push(chunk);
  }
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
  return { words: text.trim().split(/\s+/).length, usage: chunks.at(-1).usage ?? null };
}
told.stream = await streamed({});
told.counted = await streamed({ stream_options: { include_usage: true } });

const helped = client.chat.completions.stream({ model: 'm', messages, tools: [weather], tool_choice: 'required' });
const call = (await helped.finalChatCompletion()).choices[0].message.tool_calls[0];
told.tool = [call.function.name, JSON.parse(call.function.arguments)];

told.legacy = (await client.completions.create({ model: 'm', prompt: 'Once', max_tokens: 5 })).choices[0].text.split(/\s+/).length;
// As base64, which this SDK asks for and decodes by itself.
const vectors = await client.embeddings.create({ model: 'm', input: ['a', 'b'] });
told.vectors = vectors.data.map((one) => one.embedding.filter((number) => Number.isFinite(number)).length);
told.models = [];
for await (const model of client.models.list()) told.models.push(model.id);
told.model = (await client.models.retrieve('m')).id;

const many = await Promise.all([...Array(40).keys()].map((number) =>
  client.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: `${number}` }], max_tokens: 3 })));
told.many = many.filter((one) => one.choices[0].message.content).length;
const much = [{ role: 'user', content: 'x'.repeat(900_000) }];
told.much = (await client.chat.completions.create({ model: 'm', messages: much, max_tokens: 1 })).usage.prompt_tokens;

async function failure(attempt) {
  try {
    await attempt();
    return null;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, should_retry: error.headers?.get('x-should-retry') };
  }
}
told.unknown = await failure(() => client.chat.completions.create({ model: 'nobody', messages }));
told.invalid = await failure(() => client.chat.completions.create({ model: 'm' }));
told.large = await failure(() => client.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'x'.repeat(1_500_000) }] }));
told.broken = await failure(async () => {
  for await (const _ of await client.chat.completions.create({ model: 'broken', messages, stream: true }));
});
told.late = await failure(() => client.chat.completions.create({ model: 'hangs', messages }, { timeout: 150, maxRetries: 0 }));

const left = await client.chat.completions.create({ model: 'half', messages, stream: true });
for await (const _ of left) break;
console.log(JSON.stringify(told));
