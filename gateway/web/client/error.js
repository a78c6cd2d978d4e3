// The one error of the client. Its message says whose fault it is, what was expected, what came.

export class TickfanError extends Error {
  constructor(code, message, symbol) {
    super(message);
    this.name = "TickfanError";
    this.code = code;
    this.symbol = symbol;
  }
}
