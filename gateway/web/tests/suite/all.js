// Every case of the suite.

import { cases as faults } from "./faults.js";
import { cases as golden } from "./golden.js";
import { cases as recordings, hour } from "./recording.js";

export const cases = [...golden, ...recordings, ...faults, hour];
